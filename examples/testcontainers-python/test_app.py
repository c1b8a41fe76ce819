"""An app and a metadata mock by Testcontainers: python test_app.py, or pytest test_app.py."""

import os

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

APP = os.environ.get("APP_IMAGE", "my-app")  # its Dockerfile ends as docker/app.Dockerfile
MOCK = os.environ.get("MOCK_IMAGE", "public.ecr.aws/aws-ec2/amazon-ec2-metadata-mock:v1.13.0")
COMMAND = ["curl", "-sS", "http://169.254.169.254/latest/meta-data/instance-id"]


def test_app_reads_the_mock() -> None:
    with Network() as network:
        mock = DockerContainer(MOCK).with_network(network).with_network_aliases("mock")
        app = (
            DockerContainer(APP)
            .with_network(network)
            .with_env("MOCK_HOSTNAME", "mock:1338")
            .with_kwargs(cap_add=["NET_ADMIN"], cap_drop=["NET_RAW"])
            .waiting_for(LogMessageWaitStrategy("; exec "))  # imds-detour's last line, before it becomes the app
        )
        with mock, app:
            status, output = app.exec(COMMAND)
            print(output.decode())
            assert (status, output[:2]) == (0, b"i-")


if __name__ == "__main__":
    test_app_reads_the_mock()
