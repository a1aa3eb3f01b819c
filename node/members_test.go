package node

import (
	"testing"

	"labmesh"
	"labmesh/mesh"
)

// TestWhoMaySpeakWhat is the table of roles and protocols between members.
func TestWhoMaySpeakWhat(t *testing.T) {
	t.Parallel()
	for protocol, worker := range map[string]bool{
		raftProtocol: false, forwardProtocol: false, ledgerProtocol: false, sealProtocol: false,
		leafProtocol: true, httpProtocol: true, leaseProtocol: true, clockProtocol: true, contentProtocol: true, logsProtocol: true, mirrorProtocol: true,
		mesh.AdvertProtocol: true, "": true,
	} {
		for role, want := range map[labmesh.Role]bool{labmesh.RoleNode: true, labmesh.RoleWorker: worker, labmesh.RoleAdmin: false, "": false} {
			if got := maySpeak(role, protocol); got != want {
				t.Errorf("role %q, protocol %q: %v, want %v", role, protocol, got, want)
			}
		}
	}
}
