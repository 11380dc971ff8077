# One image for everything that a cluster runs: the controller, Envoy, pickers, and model servers
# without a GPU. All of it is inside; nothing is fetched when a container starts.
#
#     docker buildx build --platform linux/amd64,linux/arm64 -t pointsman:0.1.0 .
#
# The Python is of the version that the tests run with.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY requirements-runtime.lock ./
# Wheels only: no compiler runs, and each platform gets what was tested under these hashes.
RUN python -m venv --without-pip /opt/pointsman \
    && python -m pip --python /opt/pointsman/bin/python install \
        --require-hashes --only-binary :all: --no-compile -r requirements-runtime.lock
# Debug symbols, tests, and what only compilers and type checkers read.
RUN find /opt/pointsman -type f -name '*.so*' -exec strip --strip-debug {} + \
    && find /opt/pointsman -type d -name tests -prune -exec rm -r {} + \
    && find /opt/pointsman -type f \
        \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.c' \) -delete
COPY src/pointsman /build/pointsman
# The root of a container is only read, so that what Python compiles has to be there before.
RUN mv pointsman "$(/opt/pointsman/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && printf '%s\n' '#!/opt/pointsman/bin/python -P' 'from pointsman.cli.main import main' 'main()' \
        > /opt/pointsman/bin/pointsman \
    && chmod 0755 /opt/pointsman/bin/pointsman \
    && /opt/pointsman/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/pointsman/lib \
    && /opt/pointsman/bin/pointsman version

FROM python:${PYTHON_VERSION}-slim-bookworm
LABEL org.opencontainers.image.title="Pointsman" \
      org.opencontainers.image.description="An inference gateway: its controller, its Envoy, its picker" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /opt/pointsman /opt/pointsman
ENV PATH=/opt/pointsman/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 65532:65532
ENTRYPOINT ["pointsman"]
