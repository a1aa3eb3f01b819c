package labmesh

import "time"

// Secret is a named value that the mesh keeps for the attempts that ask for
// it. Its value is shown to nobody and written to no log.
type Secret struct {
	Name  string    `json:"name"`  // a name for a variable of the environment
	Value string    `json:"value"` // "" for one that is sealed
	By    string    `json:"by,omitempty"`
	Put   time.Time `json:"put"`
	// Projects are those whose keys may ask for it. Keys that are not held to one project always may.
	Projects []string `json:"projects,omitempty"`
	// Sealed is the value as the log and the snapshots hold it.
	Sealed *Sealed `json:"sealed,omitempty"`
}

// Limits on secrets.
const (
	SecretBytesMax = 64 << 10
	SecretsMax     = 1000 // in one mesh
	ProjectsMax    = 100  // that may ask for one secret
	// SecretBytesHidden is the least a value must have to be hidden in what
	// attempts print: a shorter one is in everything.
	SecretBytesHidden = 4
)

// String hides the value.
func (s Secret) String() string { return "secret " + s.Name }

// GoString hides the value too.
func (s Secret) GoString() string { return s.String() }
