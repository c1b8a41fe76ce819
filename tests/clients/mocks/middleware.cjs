// A middleware of json-server that names the server as EC2 does.
module.exports = (request, response, next) => {
  response.set("Server", "EC2ws");
  next();
};
