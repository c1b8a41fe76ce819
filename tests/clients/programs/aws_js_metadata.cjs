// Print what MetadataService of the AWS SDK for JavaScript v3 reads; it asks for paths with two slashes in front.
const { MetadataService } = require("@aws-sdk/ec2-metadata-service");

new MetadataService()
  .request("/latest/meta-data/instance-id", {})
  .then((instance) => console.log(JSON.stringify({ instance })));
