package api

import (
	"time"

	"labmesh"
)

// Limits on what a request may hold.
const (
	BodyBytesMax  = 1 << 20  // the body of a request
	BatchBytesMax = 64 << 20 // the body of a batch submit
	BatchTasksMax = 10_000
	PageDefault   = 100 // tasks in one page of a list
	PageMax       = 1000

	SQLBytesMax     = 64 << 10
	QueryTimeoutMax = 10 * time.Minute
	QueryRowsMax    = 1_000_000

	InviteTTLMax  = 365 * 24 * time.Hour
	InviteUsesMax = 10_000
)

// What an invite is when its request does not say.
const (
	InviteRoleDefault = labmesh.RoleNode
	InviteTTLDefault  = 24 * time.Hour
	InviteUsesDefault = 1
)
