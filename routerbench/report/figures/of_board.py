"""All pictures of one board, in the order of the page."""

from routerbench.figures.picture import Picture
from routerbench.report.boards.board import Board
from routerbench.report.figures.at_test_time import accuracy_against_flops
from routerbench.report.figures.forest import forest
from routerbench.report.figures.learning import learning_curves
from routerbench.report.figures.maps import expert_maps
from routerbench.report.figures.replaced import lost_without_routers
from routerbench.report.figures.routing import routing_by_layer


def pictures_of(board: Board) -> list[Picture]:
    """Those that the board's runs can give."""
    trained = [forest(board), *learning_curves(board), routing_by_layer(board), expert_maps(board)]
    pictures = [*trained, accuracy_against_flops(board), lost_without_routers(board)]
    return [picture for picture in pictures if picture is not None]
