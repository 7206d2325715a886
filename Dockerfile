# Firebox with a few languages, for compose.yaml. More languages: add their Debian packages; docs/develop/add-a-language.md.
FROM debian:trixie-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        python3 python3-venv ca-certificates \
        bash gcc g++ libc6-dev musl-tools golang-go nodejs perl php-cli ruby \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/source
COPY pyproject.toml hatch_build.py README.md LICENSE requirements-dev.lock ./
COPY scripts/build_native.py ./scripts/
COPY native ./native
COPY src ./src
# The versions that the tests ran with.
RUN sed -n 's/^\([a-z0-9-]*==[^ ;]*\).*/\1/p' requirements-dev.lock >constraints.txt \
    && python3 -m venv /opt/firebox \
    && /opt/firebox/bin/pip install --no-cache-dir --constraint constraints.txt '.[postgres,redis]'

ENV PATH=/opt/firebox/bin:$PATH
VOLUME /var/lib/firebox
EXPOSE 2000 44000
CMD ["firebox", "serve"]
