"""The steps of a release, each as a verb of scripts/release. Only the uploads are in .github/workflows."""
