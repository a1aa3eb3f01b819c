package node

import (
	"context"
	"slices"

	"labmesh"
	"labmesh/node/httpapi"
)

// PutSecret keeps a secret, in place of any before it with the same name.
func (s *service) PutSecret(ctx context.Context, secret labmesh.Secret) error {
	sealed, err := s.n.vault.conceal(ctx, secret)
	if err != nil {
		return err
	}
	return s.propose(ctx, labmesh.PutSecret{Secret: sealed})
}

// DropSecret forgets a secret.
func (s *service) DropSecret(ctx context.Context, name, by string) error {
	if !s.hasSecret(ctx, name) {
		return labmesh.Refuse(labmesh.NotFound, "no secret %s", name)
	}
	return s.propose(ctx, labmesh.DropSecret{Name: name, By: by})
}

// Secrets are the secrets without their values.
func (s *service) Secrets(context.Context) (list []labmesh.Secret, err error) {
	for secret := range s.n.replica.View().Secrets() {
		list = append(list, labmesh.Secret{Name: secret.Name, By: secret.By, Put: secret.Put, Projects: secret.Projects})
	}
	return list, nil
}

// hasSecret reports whether the mesh has a secret, also when it was put through
// another node just now.
func (s *service) hasSecret(ctx context.Context, name string) bool {
	_, ok := s.n.replica.View().Secret(name)
	if !ok && s.freshen(ctx) {
		_, ok = s.n.replica.View().Secret(name)
	}
	return ok
}

// checkSecrets refuses a task that asks for a secret that the mesh does not have,
// or that the project of who submits it may not ask for.
func (s *service) checkSecrets(ctx context.Context, by httpapi.Caller, specs []labmesh.Spec) error {
	for i := range specs {
		for _, name := range specs[i].Secrets {
			if !s.hasSecret(ctx, name) {
				return labmesh.RefuseField("secrets", "secrets: the mesh has no secret %s: set it with `labmesh secret set %s`", name, name)
			}
			secret, ok := s.n.replica.View().Secret(name)
			if by.Confined() && !(ok && slices.Contains(secret.Projects, by.Project)) {
				return labmesh.RefuseField("secrets", "secrets: %s is not for project %q: an admin may set it with `labmesh secret set %s --project %s`", name, by.Project, name, by.Project)
			}
		}
	}
	return nil
}

// propose has a command done, and waits until this node knows of it.
func (s *service) propose(ctx context.Context, cmd labmesh.Command) error {
	rc, err := s.n.replica.Propose(ctx, cmd)
	if err != nil {
		return err
	}
	if refused := rc.Answers[0].Refused; refused != nil {
		return refused
	}
	return s.n.replica.Await(ctx, rc.Index)
}
