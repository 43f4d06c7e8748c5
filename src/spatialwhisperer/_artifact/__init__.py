"""What the package stores: folders of JSON and safetensors with checksums."""
