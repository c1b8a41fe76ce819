// Print what gcp-metadata reads: whether there is a metadata service, its project, and a token.
const gcp = require("gcp-metadata");

(async () => {
  const available = await gcp.isAvailable();
  const project = await gcp.project("project-id");
  const token = await gcp.instance("service-accounts/default/token");
  console.log(JSON.stringify({ available, project, token: token.access_token }));
})();
