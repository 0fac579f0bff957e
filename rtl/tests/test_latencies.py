"""The pipeline depths that the timing model counts with are those of the hardware."""

from hwsim import machine
from rtl.accumulator import Accumulator
from rtl.activation_streamer import ActivationStreamer
from rtl.array import Array
from rtl.dsp_array import DspArray
from rtl.leaves.memory import TwoCycleMemory
from rtl.max_pool import MaxPool
from rtl.requantizer import Requantizer
from rtl.weight_feeder import WeightFeeder
from rtl.weight_loader import WeightLoader
from rtl.weight_switch import WeightSwitch


def test_latencies():
    assert machine.MEMORY_LATENCY_CYCLES == TwoCycleMemory.LATENCY
    read_cycles = machine.ADDRESS_LATENCY_CYCLES + TwoCycleMemory.LATENCY + machine.ACTIVATION_ARRIVAL_CYCLES
    assert read_cycles == ActivationStreamer.LATENCY
    assert machine.WEIGHT_ARRIVAL_CYCLES == WeightLoader.ARRIVAL_CYCLES
    assert machine.WEIGHT_SWITCH_LATENCY_CYCLES == WeightSwitch.LATENCY
    assert machine.ARRAY_LATENCY_CYCLES == {"planes": Array.LATENCY, "dsp": DspArray.LATENCY}
    assert machine.ACCUMULATOR_LATENCY_CYCLES == Accumulator.LATENCY
    assert machine.ACCUMULATOR_HAZARD_CYCLES == Accumulator.HAZARD_CYCLES
    assert machine.REQUANTIZER_LATENCY_CYCLES == Requantizer.LATENCY
    assert machine.MAX_POOL_LATENCY_CYCLES == MaxPool.LATENCY
    assert machine.FEEDER_PASS_CYCLES == WeightFeeder.PASS_CYCLES
