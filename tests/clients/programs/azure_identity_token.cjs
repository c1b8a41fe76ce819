// Print the managed identity's access token.
const { ManagedIdentityCredential } = require("@azure/identity");

new ManagedIdentityCredential()
  .getToken("https://management.azure.com/.default")
  .then((got) => console.log(JSON.stringify({ token: got.token })));
