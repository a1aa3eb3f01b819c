package probe

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"labmesh"
)

// smiFields are what nvidia-smi is asked for. Drivers that are too old for one of
// them refuse the whole question: then it is asked again without.
var smiFields = []string{"index", "uuid", "name", "pci.bus_id", "memory.total", "driver_version", "compute_cap", "mig.mode.current"}

// unknownField is how nvidia-smi refuses a field.
var unknownField = regexp.MustCompile(`[Ff]ield "([a-z_.]+)" is not a valid field`)

// askSMI asks nvidia-smi, where NVML could not be asked.
func askSMI(ctx context.Context, cfg Config) (gpuReport, error) {
	path, err := findTool("nvidia-smi", cfg.Environ)
	if err != nil {
		return gpuReport{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Patience)
	defer cancel()
	run := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env, cmd.WaitDelay = cfg.Environ, time.Second
		out, err := cmd.Output()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("nvidia-smi did not answer within %v", cfg.Patience)
		}
		return out, err
	}
	fields, out, err := query(run, smiFields)
	if err != nil {
		return gpuReport{}, err
	}
	r, sliced, err := parseSMI(fields, out)
	if err != nil || !sliced {
		return r, err
	}
	list, err := run("-L")
	if err != nil {
		return gpuReport{}, fmt.Errorf("nvidia-smi -L: %w%s", err, lastWords(err))
	}
	return r.slice(parseSMIList(list)), nil
}

// query asks for all those fields, and after each refusal for one less.
func query(run func(...string) ([]byte, error), all []string) (fields []string, out []byte, err error) {
	fields = slices.Clone(all)
	for range all {
		out, err = run("--query-gpu="+strings.Join(fields, ","), "--format=csv,noheader,nounits")
		if err == nil {
			return fields, out, nil
		}
		refused := unknownField.FindSubmatch(append(out, lastWords(err)...))
		if refused == nil || !slices.Contains(fields, string(refused[1])) {
			break
		}
		fields = slices.DeleteFunc(fields, func(f string) bool { return f == string(refused[1]) })
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("nvidia-smi says: %.200s (%w)", bytes.TrimSpace(append(out, exit.Stderr...)), err)
	}
	return nil, nil, err
}

// parseSMI reads the answer of nvidia-smi for these fields, memory in MiB.
// sliced reports that a GPU is in MIG mode: then only its slices can be used.
func parseSMI(fields []string, out []byte) (r gpuReport, sliced bool, err error) {
	rows := csv.NewReader(bytes.NewReader(out))
	rows.TrimLeadingSpace = true
	rows.FieldsPerRecord = len(fields)
	all, err := rows.ReadAll()
	if err != nil {
		return r, false, fmt.Errorf("read the answer of nvidia-smi: %w", err)
	}
	for _, row := range all {
		get := func(field string) string {
			if i := slices.Index(fields, field); i >= 0 && !strings.HasPrefix(row[i], "[") { // [N/A], [Not Supported], [Unknown Error]
				return row[i]
			}
			return ""
		}
		index, err := strconv.Atoi(get("index"))
		if err != nil || index < 0 {
			return r, false, fmt.Errorf("read the answer of nvidia-smi: %.40q is no index of a GPU", get("index"))
		}
		d := labmesh.Device{Index: index, UUID: get("uuid"), Name: get("name"), PCI: pciAddress(get("pci.bus_id")), Level: labmesh.DeviceDriver}
		if mb, err := strconv.ParseFloat(get("memory.total"), 64); err == nil && mb > 0 && mb < 1<<30 {
			d.MemoryGB = round(mb*mib/gib, 2)
		}
		if _, err := strconv.ParseFloat(get("compute_cap"), 64); err == nil {
			d.Compute = get("compute_cap")
		}
		d.MIG = get("mig.mode.current") == "Enabled"
		sliced = sliced || d.MIG
		r.Devices, r.Driver = append(r.Devices, d), get("driver_version")
	}
	if len(r.Devices) == 0 {
		return r, false, errors.New("nvidia-smi answers, and shows no GPU")
	}
	return r, sliced, nil
}

// migSlice is a slice of a GPU as nvidia-smi -L lists it.
type migSlice struct{ profile, uuid string }

var (
	smiGPU   = regexp.MustCompile(`^GPU \d+: .*\(UUID: ([^)\s]+)\)`)
	smiSlice = regexp.MustCompile(`^\s+MIG (\S+)\s+Device\s+\d+: \(UUID: ([^)\s]+)\)`)
	migSize  = regexp.MustCompile(`\.(\d{1,4})gb`)
)

// parseSMIList reads the slices of each GPU, by its UUID.
func parseSMIList(out []byte) map[string][]migSlice {
	slices, of := map[string][]migSlice{}, ""
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\r\n")
		if gpu := smiGPU.FindStringSubmatch(line); gpu != nil {
			of = gpu[1]
		} else if s := smiSlice.FindStringSubmatch(line); s != nil {
			slices[of] = append(slices[of], migSlice{profile: s[1], uuid: s[2]})
		}
	}
	return slices
}

// slice puts the slices of a GPU that is in MIG mode in its place. The memory of
// a slice is what its profile promises, in 10⁹ bytes; a driver gives it a little more.
func (r gpuReport) slice(of map[string][]migSlice) gpuReport {
	var out []labmesh.Device
	for _, d := range r.Devices {
		if !d.MIG {
			out = append(out, d)
			continue
		}
		for _, s := range of[d.UUID] {
			part := d
			part.UUID, part.Name, part.MemoryGB = s.uuid, d.Name+" MIG "+s.profile, 0
			if m := migSize.FindStringSubmatch(s.profile); m != nil {
				n, _ := strconv.ParseFloat(m[1], 64) // digits, all of them
				part.MemoryGB = round(n*1e9/gib, 2)
			}
			out = append(out, part)
		}
		if len(of[d.UUID]) == 0 {
			out = append(out, withoutSlices(d))
		}
	}
	r.Devices = number(out)
	return r
}

// withoutSlices is a GPU in MIG mode that has not been cut into slices: nothing can run on it.
func withoutSlices(d labmesh.Device) labmesh.Device {
	d.MIG, d.Level = false, labmesh.DevicePresent
	d.Reason = "it is in MIG mode and has no slices: make some with nvidia-smi mig -cgi … -C, or leave the mode with nvidia-smi -mig 0"
	return d
}

// number gives devices their places in the list as indexes. Slices have none of their own.
func number(devices []labmesh.Device) []labmesh.Device {
	for i := range devices {
		devices[i].Index = i
	}
	return devices
}
