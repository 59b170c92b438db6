"""The reconstruction program of the pipeline ``wbp``; it runs in the job, never in the daemon.

``python -m tiltd.plugins.reconstruct --help`` tells its arguments.  It needs numpy and mrcfile and goes
through four phases, each spread over the placed cores by processes::

    prepare      read, remove hot pixels, bin             one section at a time   stack.py
    align        shifts by stretched cross-correlation    all sections, small     align.py
    turn         tilt axis upright, shifts applied        one section at a time   resample.py
    backproject  ramp filter and sum, slab by slab        a few rows of y         backproject.py

This package module and :mod:`.budget` import nothing heavy: the daemon reads the formulas there.

Geometry: x to the right, y up (the order of rows in an MRC file), z towards the viewer.  The tilt axis is
turned counter-clockwise from +y by ``tilt_axis_deg`` (SerialEM's RotationAngle), and is upright in the
result.  A point (x, y, z) appears in the view of tilt ``a`` at (x cos a + z sin a, y).
"""
