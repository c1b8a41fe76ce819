// Print what Google's metadata package for Go reads: whether there is a service, and its project.
package main

import (
	"encoding/json"
	"log"
	"os"

	"cloud.google.com/go/compute/metadata"
)

func main() {
	project, err := metadata.ProjectID()
	if err != nil {
		log.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{"available": metadata.OnGCE(), "project": project})
}
