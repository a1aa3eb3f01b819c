package probe

import (
	"context"

	"labmesh"
)

// ProbeDevices is [Probe] without what takes long: tools.
func ProbeDevices(ctx context.Context, cfg Config) labmesh.Capabilities {
	if cfg.Patience == 0 {
		cfg.Patience = patience
	}
	c := labmesh.Capabilities{Absent: map[string]string{}, Memory: memory(ctx, cfg.Root)}
	all, gpu := accelerators(ctx, cfg)
	equip(&c, all, gpu, cfg.Declared)
	return c
}
