// Package infer is the engine that labmesh carries in itself: it runs BERT, ResNet
// and a plain perceptron on the processor, in fp32, so that a machine with nothing but our
// binary has something to measure. It is not for using models: their weights are random.
//
// [Load] makes a model, [Model.Prepare] plans it for a batch size, [Batch.Run] is one
// iteration. Weights and inputs follow from the seed alone (see numbers.go) and are equal to the bit on every machine
// and with every kernel, so that [Batch.Summary] tells whether an engine really computed. Memory is taken when a model is
// made or a batch is prepared, and never in an iteration.
package infer
