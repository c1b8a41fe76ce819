"""Print what cloud-init's crawl of the EC2 metadata finds, as on the first boot of an instance."""

import json

from cloudinit.sources import DataSourceEc2 as ec2


class Booting(ec2.DataSourceEc2):
    """The data source on a machine whose firmware says EC2, which is where cloud-init asks."""

    def _get_cloud_name(self):
        return ec2.CloudNames.AWS


found = Booting({"datasource": {"Ec2": {"max_wait": 5, "timeout": 5}}}, None, None).crawl_metadata()
meta_data = found["meta-data"]
print(
    json.dumps(
        {
            "instance": meta_data["instance-id"],
            "document": found["dynamic"]["instance-identity"]["document"]["instanceId"],
            "macs": sorted(meta_data["network"]["interfaces"]["macs"]),
            "user-data": found["user-data"].decode(),
        }
    )
)
