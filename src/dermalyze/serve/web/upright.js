// The picture as the model saw it. Browsers turn JPEG and PNG upright by EXIF themselves, but not all of them WebP.

const ORIENTATION = 0x0112;
const TURNS = { // canvas transform by EXIF orientation, for the stored width and height
  2: (w) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w) => [0, -1, 1, 0, 0, w],
};

/** The file itself, or for a WebP that is stored turned an upright copy of it. */
export async function upright(file) {
  try {
    if (await file.slice(8, 12).text() !== "WEBP") return file;
    const orientation = webpOrientation(new DataView(await file.arrayBuffer()));
    return orientation in TURNS ? await turned(file, orientation) : file;
  } catch {
    return file;
  }
}

async function turned(file, orientation) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "none" });
  const [w, h] = [bitmap.width, bitmap.height];
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = orientation > 4 ? [h, w] : [w, h];
  const drawing = canvas.getContext("2d");
  drawing.setTransform(...TURNS[orientation](w, h));
  drawing.drawImage(bitmap, 0, 0);
  bitmap.close();
  return new Promise((resolve) => { canvas.toBlob((blob) => resolve(blob ?? file), "image/png"); });
}

/** EXIF orientation of a WebP file (RFC 9649), 1 where there is none. */
export function webpOrientation(view) {
  const word = (at) => String.fromCharCode(...[0, 1, 2, 3].map((k) => view.getUint8(at + k)));
  if (view.byteLength < 20 || word(0) !== "RIFF" || word(8) !== "WEBP") return 1;
  for (let at = 12; at + 8 <= view.byteLength;) {
    const size = view.getUint32(at + 4, true);
    if (word(at) === "EXIF") {
      const start = at + 8 + (word(at + 8) === "Exif" ? 6 : 0);
      return tiffOrientation(new DataView(view.buffer, start, Math.min(size, view.byteLength - start)));
    }
    at += 8 + size + (size % 2);
  }
  return 1;
}

function tiffOrientation(tiff) {
  const little = tiff.getUint16(0) === 0x4949;
  const directory = tiff.getUint32(4, little);
  for (let k = 0; k < tiff.getUint16(directory, little); k += 1) {
    const entry = directory + 2 + 12 * k;
    if (tiff.getUint16(entry, little) === ORIENTATION) return tiff.getUint16(entry + 8, little);
  }
  return 1;
}
