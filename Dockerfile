# An image of Jitney for CPUs, from nothing but what it loads: no shell, no package manager.
#
#     docker build -t jitney .
#     docker run --read-only --tmpfs /tmp -p 8000-8002:8000-8002 -v "$PWD/examples/models:/models:ro" jitney
#
# What goes into it is said in scripts/image.py, which can also do all of this without an engine:
# docs/operations.md. Builds that are to be repeatable name the images by their digests:
# --build-arg RUST_IMAGE=rust@sha256:... --build-arg DEBIAN_IMAGE=python@sha256:...

ARG RUST_IMAGE=rust:1.92-slim-bookworm
# Debian with Python, and no older a C library than the Rust image's: the image gets its libraries.
ARG DEBIAN_IMAGE=python:3.12-slim-bookworm

# The server.
FROM ${RUST_IMAGE} AS server
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY src src
COPY benches benches
COPY loadtest loadtest
COPY settings settings
COPY simulation simulation
COPY tests tests
# The caches keep a second build short; what they hold is not part of the image, so the program is
# copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin jitney \
    && cp target/release/jitney /usr/local/bin/jitney \
    && cargo metadata --locked --format-version 1 \
       --filter-platform "$(rustc --print host-tuple)" > /usr/local/share/crates.json

# A folder for each layer of the image.
FROM ${DEBIAN_IMAGE} AS layers
WORKDIR /build
COPY LICENSE ./
COPY scripts scripts
COPY --from=server /usr/local/bin/jitney /usr/local/share/crates.json ./
RUN python3 scripts/image.py layers /layers --program jitney --crates crates.json \
    && python3 scripts/image.py measure /layers

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Jitney" \
      org.opencontainers.image.description="An inference server for ONNX models: KServe V2 over gRPC and REST" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --from=layers /layers/system /
COPY --from=layers /layers/onnxruntime /
COPY --from=layers /layers/jitney /

ENV JITNEY_ONNXRUNTIME=/opt/jitney/lib/libonnxruntime.so \
    # Outside the container, its loopback interface is out of reach.
    JITNEY_GRPC_ADDRESS=0.0.0.0:8001 \
    JITNEY_HTTP_ADDRESS=0.0.0.0:8000 \
    JITNEY_METRICS_ADDRESS=0.0.0.0:8002 \
    # Where models of a store are kept: a volume, if they are to outlive the container.
    JITNEY_CACHE_DIR=/cache

# By number, which is how Kubernetes can see that it is not root.
USER 10001
EXPOSE 8000 8001 8002
# Kubernetes does not look at this; its own probes go over gRPC.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10m CMD ["/usr/local/bin/jitney", "probe"]
ENTRYPOINT ["/usr/local/bin/jitney"]
CMD ["serve", "/models"]
