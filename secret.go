package labmesh

import "time"

// Secret is a named value that the mesh keeps for the attempts that ask for
// it. Its value is shown to nobody and written to no log.
type Secret struct {
	Name  string    `json:"name"` // a name for a variable of the environment
	Value string    `json:"value"`
	By    string    `json:"by,omitempty"`
	Put   time.Time `json:"put"`
}

// Limits on secrets.
const (
	SecretBytesMax = 64 << 10
	SecretsMax     = 1000 // in one mesh
)

// String hides the value.
func (s Secret) String() string { return "secret " + s.Name }

// GoString hides the value too.
func (s Secret) GoString() string { return s.String() }
