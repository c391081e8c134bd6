// One colour a class, the same as in every figure of a report (report/style.py): slots 0 to 6 of style.css.

const KNOWN = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"];

/** Class name to slot. The seven of HAM10000 keep theirs in any company; others take the free ones in order, then repeat. */
export function slots(names) {
  const taken = new Set(names.filter((name) => KNOWN.includes(name)).map((name) => KNOWN.indexOf(name)));
  let free = KNOWN.map((_, slot) => slot).filter((slot) => !taken.has(slot));
  if (!free.length) free = KNOWN.map((_, slot) => slot);
  let others = 0;
  const slot = (name) => (KNOWN.includes(name) ? KNOWN.indexOf(name) : free[others++ % free.length]);
  return new Map(names.map((name) => [name, slot(name)]));
}

/** A class in words: its description, and its name where that says something else. */
export function classWords(name, description) {
  return description && description !== name ? description : String(name);
}
