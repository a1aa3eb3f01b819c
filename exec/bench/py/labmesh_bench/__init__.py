"""What runner.py is made of.

wire          events out, the spec in, and what ends a run
main          the two things a runner is asked: probe and run
measure       warm-up and measurement of a batch size, the same for every engine
torch_engine  PyTorch: devices, number formats, memory
torch_models  the models that are known by name, in torch.nn
torch_hf      models by way of Hugging Face transformers, never from the network
onnx_engine   ONNX Runtime, for .onnx files
"""
