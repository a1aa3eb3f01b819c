package bench

import (
	"slices"
	"strings"
)

// Model is a model that is known by name.
type Model struct {
	Name    string
	Aliases []string
	Input   string // text, image, text pair (seq2seq) or audio
	Params  int64  // as published; engines count them
	BuiltIn bool   // whether labmesh-go runs it too
}

// Inputs of models.
const (
	InputText  = "text"
	InputImage = "image"
	InputPair  = "text pair" // what an encoder reads and what a decoder has written
	InputAudio = "audio"
)

// models are sorted by name. Their parameters are those of the published
// checkpoints; the mlp is ours: 1024 → 4096 → 4096 → 1000 with biases.
var models = []Model{
	{Name: "bert-base-uncased", Aliases: []string{"bert", "bert-base", "google-bert/bert-base-uncased"}, Input: InputText, Params: 109_482_240, BuiltIn: true},
	{Name: "bert-large-uncased", Aliases: []string{"bert-large", "google-bert/bert-large-uncased"}, Input: InputText, Params: 335_141_888, BuiltIn: true},
	{Name: "gpt2", Aliases: []string{"openai-community/gpt2"}, Input: InputText, Params: 124_439_808},
	{Name: "mlp", Input: InputText, Params: 25_076_712, BuiltIn: true},
	{Name: "resnet18", Aliases: []string{"resnet-18", "microsoft/resnet-18"}, Input: InputImage, Params: 11_689_512, BuiltIn: true},
	{Name: "resnet50", Aliases: []string{"resnet-50", "microsoft/resnet-50"}, Input: InputImage, Params: 25_557_032, BuiltIn: true},
	{Name: "t5-base", Aliases: []string{"google-t5/t5-base"}, Input: InputPair, Params: 222_903_552},
	{Name: "t5-small", Aliases: []string{"google-t5/t5-small"}, Input: InputPair, Params: 60_506_624},
	{Name: "vit-b16", Aliases: []string{"vit", "vit-base-patch16-224", "google/vit-base-patch16-224"}, Input: InputImage, Params: 86_567_656},
	{Name: "whisper-tiny", Aliases: []string{"openai/whisper-tiny"}, Input: InputAudio, Params: 37_760_640},
}

// Models lists the models that are known by name, sorted by it.
func Models() []Model { return slices.Clone(models) }

// FindModel finds a model by its name or an alias, in any case.
func FindModel(name string) (Model, bool) {
	for _, m := range models {
		if strings.EqualFold(name, m.Name) || slices.ContainsFunc(m.Aliases, func(a string) bool { return strings.EqualFold(name, a) }) {
			return m, true
		}
	}
	return Model{}, false
}

// Nearest is the known name or alias that is most like name, or "" where none is.
func Nearest(name string) string {
	best, least := "", len(name)/2+1
	for _, m := range models {
		for _, known := range append([]string{m.Name}, m.Aliases...) {
			if d := distance(strings.ToLower(name), known); d < least {
				best, least = known, d
			}
		}
	}
	return best
}

// distance is how many characters must be put in, taken out or replaced to make b of a (Levenshtein 1966).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			corner, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, corner+cost)
		}
	}
	return row[len(b)]
}
