// Print the credentials that the AWS SDK for JavaScript v3 finds by its default chain.
const { fromNodeProviderChain } = require("@aws-sdk/credential-providers");

fromNodeProviderChain({ timeout: 30000, maxRetries: 1 })().then((got) =>
  console.log(JSON.stringify({ key: got.accessKeyId, token: got.sessionToken })),
);
