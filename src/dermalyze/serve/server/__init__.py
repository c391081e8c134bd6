"""The predictor behind HTTP.

`guard` and `protocol` stand before everything: keys, limits, clocks, security headers. `app` declares the routes in
the words of OpenAPI and does no work; `service.Service` admits a request, has its uploads read with limits and
decoded in processes that may die (`decoding`), asks the engine and shapes the reply (`replies`). Whatever is not
answered is a `Refusal` with a status and a remedy (`refusals`). No upload touches a disk; no file name, pixel or
address reaches the log.

To add a route: `app.py`, its work in `service.py`, its reasons to refuse in `refusals.py`.
"""
