"""What tiltd knows of IMOD's batchruntomo: directives, demand, steps, messages, results."""
