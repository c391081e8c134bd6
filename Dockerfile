# The server alone: no torch, no compiler, no root. Build it from the repository:
#   docker build -t dermalyze .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/outputs/first/export:/model:ro" --read-only --cap-drop ALL dermalyze
FROM python:3.12-slim AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN python -m venv /opt/dermalyze \
    && /opt/dermalyze/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt ".[serve]"

FROM python:3.12-slim
COPY --from=build /opt/dermalyze /opt/dermalyze
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin dermalyze
ENV PATH=/opt/dermalyze/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["dermalyze", "serve"]
CMD ["/model", "--host", "0.0.0.0"]
