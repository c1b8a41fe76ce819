// Print the credentials that the AWS SDK for Go v1 finds by its default chain, and the identity of the instance.
package main

import (
	"encoding/json"
	"log"
	"os"

	"github.com/aws/aws-sdk-go/aws/ec2metadata"
	"github.com/aws/aws-sdk-go/aws/session"
)

func main() {
	found := map[string]string{}
	made := session.Must(session.NewSession())
	credentials, err := made.Config.Credentials.Get()
	if err != nil {
		log.Fatal(err)
	}
	found["key"], found["token"] = credentials.AccessKeyID, credentials.SessionToken
	if len(os.Args) > 1 && os.Args[1] == "identity" {
		document, err := ec2metadata.New(made).GetInstanceIdentityDocument()
		if err != nil {
			log.Fatal(err)
		}
		found["instance"], found["region"] = document.InstanceID, document.Region
	}
	json.NewEncoder(os.Stdout).Encode(found)
}
