// What is answered: a row for each task of a model. Every row has the same functions; see tasks/multiclass.js.

import * as multiclass from "./tasks/multiclass.js";
import * as multilabel from "./tasks/multilabel.js";

const TASKS = new Map([["multiclass", multiclass], ["multilabel", multilabel]]);

/** The row of a model as /v1/models describes it. One that this page does not know never counts as an answer. */
export function taskOf(model) {
  return TASKS.get(model?.task) ?? multiclass;
}
