package api

import (
	"strings"

	"labmesh"
)

// SecretRequest is the body of PUT /api/secrets/{name}.
type SecretRequest struct {
	Value    string   `json:"value"`
	Projects []string `json:"projects,omitempty"` // whose submitters may ask for it; see [labmesh.Secret]
}

// Secret is a secret as the API shows it: without its value, which it shows to nobody.
type Secret struct {
	Name string `json:"name"`
	By   Text   `json:"by"`  // who put it
	Put  Time   `json:"put"` // when
	// Projects are those whose submitters may ask for it.
	Projects []string `json:"projects,omitempty"`
}

// SecretList is the reply to GET /api/secrets.
type SecretList struct {
	Secrets []Secret `json:"secrets"`
}

// SecretReply is the reply to PUT and DELETE /api/secrets/{name}.
type SecretReply struct {
	Name    string `json:"name"`
	Message string `json:"message"`
}

// SealReply is the reply to POST /api/seal/rotate.
type SealReply struct {
	Key     string `json:"seal_key"` // the id of the new key
	Message string `json:"message"`
}

// AuditLog is the reply to GET /api/audit.
type AuditLog struct {
	Records []labmesh.AuditRecord `json:"records"` // the newest first
}

// ValidateSecret refuses a secret that no attempt could be given.
func ValidateSecret(name, value string) error {
	if e := ValidateSecretName(name); e != nil {
		return e
	}
	switch {
	case value == "":
		return labmesh.RefuseField("value", "value: it is missing or empty; to remove a secret, DELETE it")
	case len(value) > labmesh.SecretBytesMax:
		return labmesh.RefuseField("value", "value: it has %d bytes; at most %d are allowed", len(value), labmesh.SecretBytesMax)
	case strings.ContainsRune(value, 0):
		return labmesh.RefuseField("value", "value: it holds a NUL character, which no variable of an environment can")
	}
	return nil
}

// ValidateProjects refuses what cannot be the projects of a secret.
func ValidateProjects(projects []string) error {
	if len(projects) > labmesh.ProjectsMax {
		return labmesh.RefuseField("projects", "projects: there are %d; at most %d are allowed", len(projects), labmesh.ProjectsMax)
	}
	for _, p := range projects {
		if p == "" || len(p) > labmesh.ProjectCharMax {
			return labmesh.RefuseField("projects", "projects: %.40q is not the name of a project: 1 to %d characters", p, labmesh.ProjectCharMax)
		}
	}
	return nil
}

// ownPrefix begins the names of variables that only the node sets.
const ownPrefix = "LABMESH_"

// ValidateSecretName refuses a name that no secret can have.
func ValidateSecretName(name string) error {
	switch {
	case !ValidEnvName(name):
		return labmesh.RefuseField("name", "%.40q is not a name: letters, digits and _, not beginning with a digit, at most %d", name, EnvNameMax)
	case strings.HasPrefix(name, ownPrefix):
		return labmesh.RefuseField("name", "%s: names that begin with %s are the node's to set", name, ownPrefix)
	}
	return nil
}
