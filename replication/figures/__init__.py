"""Each drawing by the name of what it shows; `style` has the colours and markers of all."""
