# The image that runs the operator, the connectors and the brokers: three static binaries and nothing else.
# `make images` makes the same without a container engine.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS=linux
ARG TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY cmd cmd
COPY connectors connectors
COPY controllers controllers
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w" -o /out/ \
      ./cmd/manager ./cmd/connector github.com/nats-io/nats-server/v2 \
 && mkdir /out/etc \
 && printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' >/out/etc/passwd \
 && printf 'root:x:0:\nnonroot:x:65532:\n' >/out/etc/group \
 && chmod 0555 /out/manager /out/connector /out/nats-server \
 && chmod 0444 /out/etc/passwd /out/etc/group

FROM scratch
COPY --from=build /out/ /
ENV PATH=/
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/manager"]
