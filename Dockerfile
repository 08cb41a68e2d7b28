# The command, with everything it needs:
#   docker build -t robo-rm .                               for the CPU
#   docker build -t robo-rm --build-arg TORCH=cu128 .       for CUDA 12.8; run it with --gpus all
#   docker run --rm -v "$PWD:/work" robo-rm demo out=demo_out
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG PYTHON
ARG TORCH=cpu
# LeRobot's teleoperation builds evdev from source.
RUN apt-get update && apt-get install -y --no-install-recommends build-essential
RUN python -m venv /opt/robo-rm
COPY . /src
WORKDIR /src
# All extras but remote: s3fs needs an older python-dateutil than the constrained one.
RUN /opt/robo-rm/bin/python -m pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/${TORCH} \
    -c "constraints/py$(echo ${PYTHON} | tr -d .).txt" ".[sim,envs,lerobot,encoders,rl,ros,umi]"

FROM python:${PYTHON}-slim-bookworm
COPY --from=build /opt/robo-rm /opt/robo-rm
ENV PATH=/opt/robo-rm/bin:$PATH NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics,video
# Installs, as root, the system's libraries that render and decode video.
RUN python -m robo_policies.system.libraries && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home robo
USER robo
WORKDIR /work
ENTRYPOINT ["robo-rm"]
CMD ["--help"]
