"""The trainers: supervised, reward model, preference, online RL. One loop, one optimizer step."""
