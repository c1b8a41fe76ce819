// Serve the values of data.json with Express, to clients with a session token.
const express = require("express");
const fs = require("fs");

const app = express();
app.put("/latest/api/token", (request, response) => response.send("token"));
app.use((request, response) => {
  const value = JSON.parse(fs.readFileSync("data.json"))[request.path];
  if (request.get("X-aws-ec2-metadata-token") !== "token") response.sendStatus(401);
  else if (value) response.send(value);
  else response.sendStatus(404);
});
app.listen(Number(process.argv[3]), process.argv[2]);
