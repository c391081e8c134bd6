// Where pictures come from: the file chooser, the camera, a drop, the clipboard. What is plainly no picture is not sent.

import { byId } from "./dom.js";
import { t } from "./texts.js";

export const MOST_PICTURES = 500;

/** Call `take(files, refusals)` for whatever a person gives, anywhere on the page. */
export function watch(take) {
  const taken = (files) => {
    const refusals = [];
    const good = sift([...files], refusals);
    take(good, refusals);
  };
  for (const id of ["file", "capture"]) {
    byId(id).addEventListener("change", (event) => {
      const files = [...event.target.files];
      event.target.value = ""; // so that the same file can be chosen again
      if (files.length) taken(files);
    });
  }
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) {
      event.preventDefault();
      taken(files);
    }
  });
  let depth = 0;
  const over = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dragging", depth > 0);
  };
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(-depth);
    const items = [...(event.dataTransfer?.items ?? [])];
    if (items.some((item) => item.webkitGetAsEntry?.()?.isDirectory)) take([], [t("error.folder")]);
    else taken(event.dataTransfer?.files ?? []);
  });
  camera((file) => taken([file]));
}

function sift(files, refusals) {
  if (!files.length) refusals.push(t("error.nothing"));
  const good = [];
  const strange = [];
  for (const file of files) {
    const dicom = /\.(dcm|dicom)$/i.test(file.name) || file.type === "application/dicom";
    if (file.type && !file.type.startsWith("image/") && !dicom) strange.push(file);
    else if (!file.size) refusals.push(t("error.empty", { name: file.name }));
    else good.push(file);
  }
  if (strange.length === 1) refusals.push(t("error.not-picture", { name: strange[0].name }));
  else if (strange.length) refusals.push(t("error.skipped", { count: strange.length }));
  if (good.length > MOST_PICTURES) refusals.push(t("error.too-many", { limit: MOST_PICTURES }));
  return good.slice(0, MOST_PICTURES);
}

/** On a telephone its own camera; elsewhere a small view of the webcam, where the browser lets a page have one. */
function camera(take) {
  if (matchMedia("(pointer: coarse)").matches) {
    byId("capture-chooser").hidden = false;
    return;
  }
  if (!navigator.mediaDevices?.getUserMedia || !HTMLDialogElement.prototype.showModal) return;
  const [dialog, video, shoot] = [byId("camera-dialog"), byId("camera-video"), byId("camera-take")];
  let stream = null;
  byId("camera").hidden = false;
  byId("camera").addEventListener("click", async () => {
    byId("camera-error").textContent = "";
    shoot.disabled = true;
    dialog.showModal();
    try {
      const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
      stream = opened;
      if (!dialog.open) {
        stop();
        return;
      }
      video.srcObject = stream;
      await video.play();
      shoot.disabled = false;
    } catch (error) {
      byId("camera-error").textContent = t("camera.refused", { reason: error.name });
    }
  });
  const stop = () => {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    video.srcObject = null;
  };
  byId("camera-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop);
  shoot.addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      dialog.close();
      if (blob) take(new File([blob], `${t("view.heading")}.jpg`, { type: "image/jpeg" }));
    }, "image/jpeg", 0.95);
  });
}
