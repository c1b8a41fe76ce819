// Print the credentials that the AWS SDK for Go v2 finds by its default chain, and the identity of the instance.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

func main() {
	found := map[string]string{}
	ctx := context.Background()
	loaded, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		log.Fatal(err)
	}
	credentials, err := loaded.Credentials.Retrieve(ctx)
	if err != nil {
		log.Fatal(err)
	}
	found["key"], found["token"] = credentials.AccessKeyID, credentials.SessionToken
	if len(os.Args) > 1 && os.Args[1] == "identity" {
		document, err := imds.NewFromConfig(loaded).GetInstanceIdentityDocument(ctx, nil)
		if err != nil {
			log.Fatal(err)
		}
		found["instance"], found["region"] = document.InstanceID, document.Region
	}
	json.NewEncoder(os.Stdout).Encode(found)
}
