// Print what the AWS SDK for JavaScript v3 finds in instance metadata: the end of the access key, and the instance id.
const { fromInstanceMetadata } = require("@aws-sdk/credential-providers");
const { MetadataService } = require("@aws-sdk/ec2-metadata-service");

async function main() {
  // The SDK's default timeout is one second, without a retry.
  const credentials = await fromInstanceMetadata({ timeout: 5000, maxRetries: 2 })();
  const instance = await new MetadataService().request("/latest/meta-data/instance-id", {});
  console.log(JSON.stringify({ key: credentials.accessKeyId.slice(-4), instance }));
}

main();
