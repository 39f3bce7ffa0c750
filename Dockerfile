# syntax=docker/dockerfile:1
# ankh3 in a container.
#   docker build --target cpu  -t ankh3:0.1.0 .
#   docker build --target cuda -t ankh3:0.1.0-cuda .

FROM rust:1.89-slim-bookworm AS build-cpu
WORKDIR /src
COPY . .
RUN cargo build --release --locked && cp target/release/ankh3 /ankh3

FROM nvidia/cuda:13.0.1-devel-ubuntu22.04 AS build-cuda
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The Rust of the other builder: a toolchain is a folder.
COPY --from=build-cpu /usr/local/rustup /usr/local/rustup
COPY --from=build-cpu /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH CUDA_HOME=/usr/local/cuda
WORKDIR /src
COPY . .
RUN containers/cuda/build build --locked && cp target/release/ankh3 /ankh3

FROM nvidia/cuda:13.0.1-runtime-ubuntu22.04 AS cuda
COPY --from=build-cuda /ankh3 /usr/local/bin/ankh3
RUN useradd --create-home --uid 1000 ankh3
USER 1000
WORKDIR /work
# Libraries of CUDA are opened as it runs: it starts without a driver too.
RUN ankh3 --version
CMD ["ankh3", "--version"]

FROM debian:bookworm-slim AS cpu
# ps, which Nextflow measures tasks with.
RUN apt-get update && apt-get install -y --no-install-recommends procps=2:4.0.2-3 && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ankh3
COPY --from=build-cpu /ankh3 /usr/local/bin/ankh3
USER 1000
WORKDIR /work
RUN ankh3 --version
CMD ["ankh3", "--version"]
