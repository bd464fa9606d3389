"""All pictures of one board, in the order of the page."""

from routerbench.report.boards.board import Board
from routerbench.report.figures.forest import forest
from routerbench.report.figures.learning import learning_curves
from routerbench.report.figures.maps import expert_maps
from routerbench.report.figures.picture import Picture
from routerbench.report.figures.routing import routing_by_layer


def pictures_of(board: Board) -> list[Picture]:
    """Those that the board's runs can give."""
    pictures = [forest(board), *learning_curves(board), routing_by_layer(board), expert_maps(board)]
    return [picture for picture in pictures if picture is not None]
