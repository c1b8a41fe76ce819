// An app and a metadata mock by Testcontainers: node --test
import assert from "node:assert";
import { test } from "node:test";
import { GenericContainer, Network, Wait } from "testcontainers";

const APP = process.env.APP_IMAGE ?? "my-app"; // its Dockerfile ends as docker/app.Dockerfile
const MOCK = process.env.MOCK_IMAGE ?? "public.ecr.aws/aws-ec2/amazon-ec2-metadata-mock:v1.13.0";
const COMMAND = ["curl", "-sS", "http://169.254.169.254/latest/meta-data/instance-id"];

test("the app reads the mock", async () => {
  const network = await new Network().start();
  const mock = await new GenericContainer(MOCK).withNetwork(network).start();
  const app = await new GenericContainer(APP)
    .withNetwork(network)
    .withEnvironment({ MOCK_HOSTNAME: `${mock.getIpAddress(network.getName())}:1338` })
    .withAddedCapabilities("NET_ADMIN")
    .withDroppedCapabilities("NET_RAW")
    .withWaitStrategy(Wait.forLogMessage("; exec ")) // imds-detour's last line, before it becomes the app
    .start();
  try {
    const { exitCode, output } = await app.exec(COMMAND);
    console.log(output);
    assert.strictEqual(exitCode, 0);
    assert.match(output, /^i-/);
  } finally {
    await app.stop();
    await mock.stop();
    await network.stop();
  }
});
