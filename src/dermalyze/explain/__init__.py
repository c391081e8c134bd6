"""Where a network looks, and whether a map of that is to be believed.

`attribution.explain_batch` asks one method of `EXPLAINERS` about a batch and gives `Explained`: maps (B, H, W), the
class of each, and logits; the model is left as it was found. `faithfulness` grades maps by deletion, insertion,
localization and stability, beside floors that any method must beat; `border_reliance` and `counterfactual` paint
parts of images over. `runner` asks a run's network. Pages are `report/explain_*.py`; the map that is served comes
from the artifact's graph, not from here.

To add a method: a spec in `config/explain.py`, a function of `Question`, and a row of `EXPLAINERS`.
"""
