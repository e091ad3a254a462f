"""The vocabulary of the grammar: slots and the words that may fill them."""

from __future__ import annotations

WORDS: dict[str, list[str]] = {
    name: text.replace("\n", " ").split()
    for name, text in {
        "person": """baker teacher sailor farmer doctor nurse pilot judge lawyer plumber carpenter butcher painter
            poet singer dancer drummer violinist musician magician wizard witch knight prince princess king queen duke
            thief spy detective soldier captain clown juggler acrobat waiter chef cook gardener florist shepherd
            fisherman hunter miner blacksmith jeweler tailor cobbler barber banker merchant grocer clerk secretary
            journalist author actor athlete swimmer boxer student scholar professor scientist chemist engineer
            architect builder mechanic driver cyclist traveler tourist stranger neighbor cousin child boy girl woman
            man toddler giant pirate monk priest mayor senator governor ambassador librarian watchmaker beekeeper
            treasurer royal_guard employer lifeguard goldsmith astronaut explorer shopkeeper milkman dentist
            psychologist""",
        "padj": """young old clever gentle cheerful grumpy nervous brave shy curious honest famous friendly lonely
            patient stubborn polite sleepy weary jealous proud humble loyal royal thoughtful thankful ruthless foolish
            charming generous greedy anxious joyful handsome elegant quiet noisy hungry thirsty kind wise tall short
            thin strong healthy ambitious absurd cautious courageous boyish youthful ordinary unusual eager angry
            confused mysterious casual annoying delightful thrifty breathless""",
        "animal": """dog cat horse donkey goat sheep pig cow calf lamb rabbit hare fox wolf bear badger otter beaver
            squirrel mouse rat hamster hedgehog tortoise turtle lizard frog toad snake spider beetle butterfly moth
            wasp bee cricket sparrow robin thrush pigeon crow raven owl eagle falcon hawk goose duck swan pelican
            penguin parrot peacock ostrich turkey chicken rooster camel elephant giraffe zebra lion tiger leopard
            cheetah panther monkey gorilla kangaroo koala dolphin whale shark salmon oyster jellyfish octopus crab
            lobster snail worm pony puppy kitten moose yak vixen mammoth""",
        "aadj": """tiny huge fierce furry fluffy spotted striped clumsy lazy playful wild tame timid frightened hungry
            thirsty graceful slippery feathered fearless restless sleepy greedy cunning muddy scruffy shaggy plump
            skinny enormous gray brown beige golden black white noisy quiet elderly injured orphaned loyal""",
        "food": """apple pear peach orange lemon melon cherry plum banana mango coconut walnut chestnut potato tomato
            onion carrot turnip radish mushroom cabbage pumpkin cucumber pickle sausage sandwich pancake waffle muffin
            biscuit cookie doughnut pie pudding omelet pretzel noodle dumpling meatball oyster shrimp fig cheesecake
            chocolate_cake strawberry blueberry raspberry boiled_egg milkshake toffee_apple bowl_of_soup
            slice_of_bread cup_of_coffee glass_of_juice plate_of_rice bowl_of_broth pot_of_stew jar_of_honey""",
        "fadj": """sweet sour bitter spicy salty ripe rotten juicy crunchy creamy delicious tasty fresh stale frozen
            roasted moist burnt enormous tiny strange spoiled smooth warm oily buttery""",
        "thing": """hammer shovel ladder bucket basket bottle jug kettle teapot saucer spoon fork knife bowl plate
            candle lantern torch lamp mirror clock watch compass map key lock chain rope ribbon button needle thimble
            ring necklace bracelet jewel crown sword shield helmet arrow treasure_chest purse wallet suitcase trunk
            parcel package envelope coin toy doll puzzle kite balloon whistle bell drum brush broom sponge towel
            pillow blanket cushion carpet chair stool vase statue picture photograph telescope microscope camera radio
            television telephone machine engine wheel bicycle wagon sled canoe anchor oar sail flag banner hinge nail
            pulley spring feather pebble shell walking_stick umbrella invention garden_hose thermometer ruler""",
        "tadj": """old new broken heavy light rusty shiny dusty golden silver wooden leather plastic enormous tiny
            round square narrow wide thick thin smooth rough bright dull strange unusual useful useless expensive
            cheap precious beautiful ugly ancient modern fragile sturdy crooked stolen hidden painted polished purple
            yellow orange azure scarlet beige turquoise green blue twisted noisy hollow lengthy""",
        "garment": """coat jacket sweater shirt scarf hat cap glove mitten boot shoe slipper sandal sock belt dress
            skirt apron cloak robe gown vest costume uniform raincoat nightshirt waistcoat bonnet overcoat""",
        "gadj": """woolen leather velvet silk cotton ragged striped spotted checkered purple crimson beige yellow blue
            green warm soft itchy elegant shabby loose tight enormous filthy torn azure fashionable corduroy""",
        "instrument": """piano violin cello guitar banjo flute clarinet oboe trumpet trombone tuba harp accordion
            harmonica bagpipe fiddle organ xylophone tambourine""",
        "text": """letter poem story novel diary newspaper recipe report speech song telegram message note essay
            dictionary biography pamphlet confession chapter postcard manuscript chart""",
        "xadj": """long short funny sad boring brilliant secret curious charming dreadful thrilling thoughtful clumsy
            lovely rhyming unfinished mysterious famous forgotten honest handwritten lengthy""",
        "idea": """plan idea decision question problem rumor theory proposal mistake promise secret choice journey
            riddle lesson warning discovery argument bargain custom law truth method adventure puzzle illusion
            conclusion explosion invasion collision vision measure occasion voyage failure joke disguise strategy""",
        "iadj": """strange simple curious clever foolish brilliant dreadful wonderful serious unusual difficult
            obvious tiny sudden mysterious dangerous peculiar thorough hasty sensible ridiculous pointless royal
            worthy""",
        "mass": """patience courage joy pleasure leisure laughter silence wisdom strength luck kindness loyalty
            honesty imagination caution warmth health faith practice confidence curiosity precision fresh_air music
            friendship good_judgment moisture sunshine noise poise""",
        "building": """house cottage castle palace tower church temple theater library museum school college hospital
            hotel bakery brewery factory station harbor lighthouse prison bank garage barn stable mill market tavern
            restaurant airport courthouse greenhouse warehouse workshop treasury monastery""",
        "nature": """forest mountain valley river lake ocean beach island meadow field garden orchard swamp jungle
            cave canyon cliff glacier volcano waterfall stream pond hill prairie marsh bay path bridge village town
            kingdom vineyard lagoon""",
        "town": "village town kingdom island valley coast castle harbor north south city suburbs countryside",
        "ladj": """old ancient quiet lonely gloomy crowded enormous narrow beautiful hidden famous ruined deserted
            peaceful haunted dusty foggy muddy sunny distant royal northern southern strange frozen smoky""",
        "furniture": """table bench cupboard wardrobe bookshelf sofa bed desk fireplace staircase curtain door window
            counter piano stove bathtub fence hedge oak_tree haystack fountain gate chimney boulder wheelbarrow""",
        "room": """kitchen attic cellar bedroom parlor hallway closet bathroom courtyard nursery ballroom corridor
            laundry pantry garage dining_room""",
        "kin_f": """my_grandmother my_mother my_sister my_aunt my_niece her_majesty our_landlady the_duchess
            the_princess the_queen my_daughter the_old_woman the_countess your_sister""",
        "kin_m": """my_grandfather my_father my_brother my_uncle my_nephew our_landlord the_duke the_prince the_king
            my_son the_old_man the_emperor your_brother the_young_boy""",
        "vfood": "eat taste cook share devour enjoy swallow chew order serve prepare steal choose buy toss chop",
        "vthing": """carry hide drop lose find borrow steal polish repair sell paint wrap examine throw return mend
            measure buy choose bring drag push pull lift grab shake destroy admire inspect sketch clean scrub bury
            break keep trade purchase weigh assemble adjust""",
        "vperson": """thank follow invite help teach warn visit greet surprise persuade forgive watch annoy
            tease praise scold amuse catch find meet admire avoid frighten encourage join call hug miss
            employ""",
        "vanimal": """feed chase watch brush rescue frighten catch follow sketch tame train pat bathe admire startle
            photograph release shelter avoid soothe""",
        "vplace": "visit leave explore paint enter avoid guard discover find search reach cross photograph destroy",
        "vbuild": "visit leave explore paint enter avoid guard discover search build buy sell repair inspect",
        "videa": """discuss explain remember forget ignore question describe regret mention consider oppose
            defend suggest enjoy change keep announce reveal""",
        "vgarment": "wear sew iron fold wash buy choose borrow stitch mend hang sell lose admire shrink unbutton",
        "vmusic": "play tune practice buy borrow repair study polish",
        "vtext": "write translate publish copy study memorize finish recite destroy discuss mail hide enjoy share",
        "vi": """sleep laugh cough sneeze sing dance wait whisper shout yawn smile frown kneel sit stand rest work hum
            whistle tremble weep grin sigh pray listen snore shiver mumble""",
        "vmove": """walk run march stroll wander hurry rush crawl ride drive travel swim stumble strut trudge climb
            skip sprint dash limp sail hike gallop""",
        "vbeast": """sleep wait hide rest sit roll scratch sniff play leap crouch dig shiver yawn doze sneeze stretch
            prowl pant""",
        "manner": """quietly slowly quickly gently bravely proudly happily sadly calmly nervously carefully politely
            eagerly clumsily gracefully joyfully angrily thoughtfully cheerfully patiently softly loudly noisily
            casually smoothly thoroughly secretly truthfully at_leisure without_a_sound with_great_pleasure
            with_enthusiasm as_usual in_a_rush""",
        "adv": "suddenly quietly slowly quickly finally eagerly secretly happily foolishly bravely usually casually",
        "freq": "always usually often rarely never sometimes seldom frequently occasionally",
        "opener": """suddenly fortunately unfortunately eventually finally afterward meanwhile naturally strangely
            to_our_surprise without_warning as_usual once_again before_long in_the_confusion by_chance luckily""",
        "num": "two three four five six seven eight nine ten eleven twelve thirteen fifteen twenty thirty",
        "comp": """bigger smaller heavier lighter older stranger louder brighter thinner thicker smoother cheaper
            more_useful more_precious more_expensive rougher uglier more_unusual cleaner""",
        "sup": """biggest smallest strangest oldest loudest finest ugliest cleverest cheapest most_beautiful
            most_unusual most_peculiar worst thinnest smoothest most_delightful""",
        "say": "say think believe claim insist admit swear announce whisper dream hear guess know",
        "feel": "delighted annoyed overjoyed surprised ashamed exhausted disappointed worried amazed puzzled enchanted",
    }.items()
}
