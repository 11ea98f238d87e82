# deeplab serve in a container: the core and the server, no torch, no compiler, nobody's rights.
#
#   docker build -t deeplab .
#   docker run --rm -p 8000:8000 deeplab
#
# For several processors at once (all packages have wheels for both):
#
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/deeplab --push .

FROM --platform=$BUILDPLATFORM node:22-bookworm-slim AS page
WORKDIR /source
COPY web/package.json web/package-lock.json web/
RUN cd web && npm ci --silent
COPY web web
COPY examples/photos examples/photos
COPY docs/browser.md docs/browser.md
COPY LICENSE LICENSE
RUN cd web && npm run --silent build

FROM python:3.12-slim-bookworm AS package
WORKDIR /source
COPY . .
COPY --from=page /source/src/deeplab/web src/deeplab/web
RUN python -m venv /opt/deeplab
RUN /opt/deeplab/bin/pip install --no-cache-dir '.[serve]'
RUN /opt/deeplab/bin/python -m compileall -q /opt/deeplab

FROM python:3.12-slim-bookworm
COPY --from=package /opt/deeplab /opt/deeplab
ENV PATH=/opt/deeplab/bin:$PATH PYTHONUNBUFFERED=1 DEEPLAB_HOME=/var/cache/deeplab
RUN mkdir -p /var/cache/deeplab && chown 10001:10001 /var/cache/deeplab
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["deeplab"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--drain", "5"]
