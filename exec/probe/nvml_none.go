//go:build !cgo || !(linux || darwin)

package probe

import (
	"encoding/json"
	"io"
)

// GPUChild writes that this build cannot ask the NVIDIA driver; nvidia-smi can.
func GPUChild(w io.Writer) error {
	return json.NewEncoder(w).Encode(gpuReport{NoLib: true})
}
