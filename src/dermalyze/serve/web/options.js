// What is asked beside the picture: which model, what it takes about the person, whether a heat map is drawn.

import { byId, el, put } from "./dom.js";
import { number, t, tOr } from "./texts.js";

/** The fields beside the picture; `changed()` is called when another model is taken, `again()` to answer once more. */
export class Options {
  constructor(models, { changed, again }) {
    this.models = models;
    this.model = models[0] ?? null;
    this.fresh = false; // entered since the last answer
    this.changed = changed;
    this.again = again;
    this.draw();
  }

  get drawsMaps() {
    return Boolean(this.model?.cam && this.model.cam !== "none");
  }

  /** Column to value of what was filled in; numbers as numbers. */
  get metadata() {
    const given = {};
    for (const { name, kind } of this.model?.metadata ?? []) {
      const value = this.fields.get(name)?.value.trim() ?? "";
      if (value) given[name] = kind === "numeric" && Number.isFinite(Number(value)) ? Number(value) : value;
    }
    return given;
  }

  /** Name of an optional image to its file. */
  get images() {
    return Object.fromEntries([...this.files].map(([name, input]) => [name, input.files[0]]).filter(([, file]) => file));
  }

  /** Forget what an earlier picture was answered with; true where something was forgotten. */
  forget() {
    const stale = !this.fresh && (Object.keys(this.metadata).length > 0 || Object.keys(this.images).length > 0);
    if (stale) for (const field of [...this.fields.values(), ...this.files.values()]) field.value = "";
    return stale;
  }

  /** Leave out the optional images, which belong to one picture; true where there were some. */
  drop() {
    const some = Object.keys(this.images).length > 0;
    for (const input of this.files.values()) input.value = "";
    return some;
  }

  /** Whether a single picture is shown, which can be answered again. */
  set single(value) {
    this.button.hidden = !value || !(this.fields.size + this.files.size);
  }

  /** Whether heat maps of the model were measured and found no better than a guess; then one is drawn only if asked for. */
  get weakMaps() {
    return this.model?.cam_grade?.verdict === "no better";
  }

  draw() {
    this.explain = !this.weakMaps;
    this.fields = new Map((this.model?.metadata ?? []).map((column, at) => [column.name, field(column, `metadata-${at}`)]));
    this.button = el("button", { type: "submit", class: "button", hidden: true }, t("ask.again"));
    this.files = new Map((this.model?.optional_images ?? []).map((name) => [name, el("input", { id: `optional-${name}`, type: "file",
      accept: "image/jpeg,image/png,image/webp,image/bmp,image/avif,.dcm", on: { change: () => { this.fresh = true; } } })]));
    const images = [...this.files].map(([name, input]) => el("div", { class: "field" },
      el("label", { for: input.id }, tOr(`field.${name}`, name)), input));
    const rows = [...this.fields].map(([name, input]) => {
      const column = this.model.metadata.find((each) => each.name === name);
      const hint = column.kind === "numeric" && Array.isArray(column.range)
        ? t("ask.range", { low: number(column.range[0]), high: number(column.range[1]) }) : null;
      if (hint) input.setAttribute("aria-describedby", `${input.id}-hint`);
      input.addEventListener("input", () => { this.fresh = true; });
      return el("div", { class: "field" }, el("label", { for: input.id }, tOr(`field.${name}`, name)), input,
        hint ? el("span", { class: "small quiet", id: `${input.id}-hint` }, hint) : null);
    });
    const form = byId("options");
    put(form,
      this.models.length > 1 ? this.chooser() : null,
      images.length ? el("fieldset", {}, el("legend", {}, t("ask.images")), el("p", { class: "small quiet" }, t("ask.images-hint")),
        el("div", { class: "fields" }, images), rows.length ? null : this.button) : null,
      rows.length ? el("fieldset", { "aria-describedby": "metadata-hint" }, el("legend", {}, t("ask.metadata")),
        el("p", { class: "small quiet", id: "metadata-hint" }, t("ask.metadata-hint")), el("div", { class: "fields" }, rows), this.button) : null,
      this.drawsMaps ? el("label", { class: "tick-box" }, el("input", { type: "checkbox", checked: this.explain,
        on: { change: (event) => { this.explain = event.target.checked; } } }), t(this.weakMaps ? "ask.explain-weak" : "ask.explain")) : null);
    form.onsubmit = (event) => {
      event.preventDefault();
      this.again();
    };
  }

  chooser() {
    const select = el("select", { id: "model-choice", on: { change: () => {
      this.model = this.models[select.selectedIndex];
      this.fresh = false;
      this.draw();
      byId("model-choice").focus();
      this.changed();
    } } }, this.models.map((model) => el("option", { selected: model === this.model }, model.name)));
    return el("div", { class: "field" }, el("label", { for: "model-choice" }, t("ask.model")), select);
  }
}

function field(column, id) {
  if (column.kind === "numeric") return el("input", { id, type: "number", step: "any", inputmode: "decimal" });
  const choices = [...(column.choices ?? [])].filter((choice) => choice !== "unknown");
  return el("select", { id }, el("option", { value: "" }, t("ask.unknown")),
    choices.map((choice) => el("option", { value: choice }, String(choice))));
}
