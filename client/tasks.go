package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/uuid"

	"labmesh"
	"labmesh/api"
)

// batchBytesGoal is how much of specs goes into one batch request: below what
// the API takes, with room for what is around them.
const batchBytesGoal = api.BatchBytesMax * 3 / 4

// Submit brings a task into the mesh. When it returns without an error the task
// is durable. Priority is sent as it is: see [api.PriorityDefault]. A spec
// without an idempotency key gets one, so that repeats make no second task.
func (c *Client) Submit(ctx context.Context, spec labmesh.Spec) (api.SubmitReply, error) {
	if spec.IdempotencyKey == "" {
		spec.IdempotencyKey = uuid.NewString()
	}
	var reply api.SubmitReply
	err := c.do(ctx, call{method: http.MethodPost, path: "/api/tasks", in: spec, out: &reply})
	return reply, err
}

// SubmitBatch brings many tasks into the mesh, in as few requests as the limits
// of the API allow; each of them is all or nothing. On an error it returns the
// ids of what had come in before. Created in the reply counts new tasks: the
// others had been there under the same idempotency key.
func (c *Client) SubmitBatch(ctx context.Context, specs []labmesh.Spec) (api.BatchReply, error) {
	var all api.BatchReply
	base := uuid.NewString()
	for next := 0; next < len(specs); {
		body, n, err := batch(specs[next:], base+"-"+strconv.Itoa(next))
		if err != nil {
			return all, err
		}
		var reply api.BatchReply
		if err = c.do(ctx, call{method: http.MethodPost, path: "/api/tasks/batch", body: body, out: &reply}); err != nil {
			return all, err
		}
		all.IDs = append(all.IDs, reply.IDs...)
		all.Created += reply.Created
		next += n
	}
	return all, nil
}

// batch is the body of a request for the first n of specs, as many as go into
// one. Those without an idempotency key get one that begins with key.
func batch(specs []labmesh.Spec, key string) (body []byte, n int, err error) {
	body = []byte(`{"tasks":[`)
	for n < len(specs) && n < api.BatchTasksMax {
		s := specs[n]
		if s.IdempotencyKey == "" {
			s.IdempotencyKey = key + "." + strconv.Itoa(n)
		}
		data, err := json.Marshal(s)
		if err != nil {
			return nil, 0, labmesh.RefuseField("tasks["+strconv.Itoa(n)+"]", "task %d: %v", n, err)
		}
		if n > 0 {
			if len(body)+len(data) > batchBytesGoal {
				break
			}
			body = append(body, ',')
		}
		body = append(body, data...)
		n++
	}
	return append(body, "]}"...), n, nil
}

// Cancel says that a task is wanted no more.
func (c *Client) Cancel(ctx context.Context, id labmesh.TaskID, reason string) (api.CancelReply, error) {
	var reply api.CancelReply
	err := c.do(ctx, call{method: http.MethodPost, path: taskPath(id) + "/cancel", in: api.CancelRequest{Reason: reason}, out: &reply})
	return reply, err
}

// Task is a task in full.
func (c *Client) Task(ctx context.Context, id labmesh.TaskID) (api.TaskDetail, error) {
	var t api.TaskDetail
	err := c.do(ctx, call{method: http.MethodGet, path: taskPath(id), out: &t})
	return t, err
}

// Why says in plain words why a task is where it is.
func (c *Client) Why(ctx context.Context, id labmesh.TaskID) (api.Why, error) {
	var w api.Why
	err := c.do(ctx, call{method: http.MethodGet, path: taskPath(id) + "/why", out: &w})
	return w, err
}

// TaskQuery selects tasks; its zero value selects all.
type TaskQuery struct {
	Status labmesh.Phase
	Type   labmesh.Kind
	Worker labmesh.WorkerID
	Limit  int    // in one page; 0 for the node's default
	Cursor string // from the page before; "" for the first
}

// Tasks is one page of tasks, in the order of submits.
func (c *Client) Tasks(ctx context.Context, q TaskQuery) (api.TaskList, error) {
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	set("status", string(q.Status))
	set("type", string(q.Type))
	set("worker_id", string(q.Worker))
	set("cursor", q.Cursor)
	if q.Limit > 0 {
		set("limit", strconv.Itoa(q.Limit))
	}
	var list api.TaskList
	err := c.do(ctx, call{method: http.MethodGet, path: "/api/tasks", query: query, out: &list})
	return list, err
}

// AllTasks is every task that q selects, page after page. It ends with the
// first error.
func (c *Client) AllTasks(ctx context.Context, q TaskQuery) iter.Seq2[api.Task, error] {
	if q.Limit == 0 {
		q.Limit = api.PageMax
	}
	return func(yield func(api.Task, error) bool) {
		for {
			page, err := c.Tasks(ctx, q)
			if err != nil {
				yield(api.Task{}, err)
				return
			}
			for _, t := range page.Tasks {
				if !yield(t, nil) {
					return
				}
			}
			if q.Cursor = page.NextCursor; q.Cursor == "" {
				return
			}
		}
	}
}

// Benchmarks is every row that a task has measured so far, page after page, in
// the order in which they were recorded. It ends with the first error.
func (c *Client) Benchmarks(ctx context.Context, id labmesh.TaskID) iter.Seq2[api.BenchTaskRow, error] {
	return func(yield func(api.BenchTaskRow, error) bool) {
		query := url.Values{}
		for {
			var page api.BenchList
			if err := c.do(ctx, call{method: http.MethodGet, path: taskPath(id) + "/benchmarks", query: query, out: &page}); err != nil {
				yield(api.BenchTaskRow{}, err)
				return
			}
			for _, r := range page.Rows {
				if !yield(r, nil) {
					return
				}
			}
			if page.NextCursor == "" {
				return
			}
			query.Set("cursor", page.NextCursor)
		}
	}
}

func taskPath(id labmesh.TaskID) string { return "/api/tasks/" + url.PathEscape(string(id)) }
