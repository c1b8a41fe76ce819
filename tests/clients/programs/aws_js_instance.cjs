// Print the credentials that the AWS SDK for JavaScript v3 reads from instance metadata.
const { fromInstanceMetadata } = require("@aws-sdk/credential-providers");

// Its default is one second, and none more.
fromInstanceMetadata({ timeout: 30000, maxRetries: 1 })().then((got) =>
  console.log(JSON.stringify({ key: got.accessKeyId, token: got.sessionToken })),
);
