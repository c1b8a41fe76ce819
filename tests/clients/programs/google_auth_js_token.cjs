// Print the project and the access token that google-auth-library's default credentials give.
const { GoogleAuth } = require("google-auth-library");

(async () => {
  const auth = new GoogleAuth({ scopes: "https://www.googleapis.com/auth/cloud-platform" });
  console.log(JSON.stringify({ project: await auth.getProjectId(), token: await auth.getAccessToken() }));
})();
