"""How pictures are drawn, wherever they stand: style, panels, marks and files."""
